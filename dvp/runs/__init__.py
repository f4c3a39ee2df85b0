"""What runs a module: devices, folder, trainer, and going on from a checkpoint. Reads config keys, as build.py does."""
