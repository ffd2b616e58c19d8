"""Studies: YAML to arms to trials, their identity, and the ledger. No torch, no ray."""
