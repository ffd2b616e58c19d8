"""From the ledger of a study to its table and figure. Knows the ledger's columns and nothing else of sarx."""
