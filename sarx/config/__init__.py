"""Configuration: typed options (schema) and their composition from Hydra groups (compose)."""
