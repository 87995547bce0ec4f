"""What is shown: events and results rendered for a terminal, a pipe, and tables in files."""
