"""The method shown on the embedded world, through the commands that a user types. Stands above run.py."""
