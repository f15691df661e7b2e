"""Platform adapters: doors to the outside."""
