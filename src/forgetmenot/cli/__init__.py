"""One command a file, each a story told top to bottom."""
