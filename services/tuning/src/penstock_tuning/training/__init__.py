"""What every training recipe shares: recipe files, checkpoints, runs in pieces, progress, hardware, the registry."""
