"""What people bring from the published code: its checkpoints, read without running them, in our names.

Stands above the module that takes them.
"""
