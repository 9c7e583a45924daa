"""What works with what: every method tried with models, penalties, ranks, saving and export, and a table of answers."""
