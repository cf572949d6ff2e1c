"""What happens around training: checkpoints, progress, throughput, pictures."""
