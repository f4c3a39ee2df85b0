"""What only makes a step on a CPU cheaper, and changes nothing else."""
