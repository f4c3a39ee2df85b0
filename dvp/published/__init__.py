"""What people bring from the published code: its checkpoints, in our names. Stands above the module that takes them."""
