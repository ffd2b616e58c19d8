"""Search: proposals through Optuna, and the engine that turns them into segments. No torch, no ray."""
