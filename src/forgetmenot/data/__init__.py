"""From a record in a file to token ids in a batch."""
