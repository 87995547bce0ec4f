"""Small example networks that ship with the pipeline."""
