"""What a run would meet on this machine, looked at beforehand: packages, tables, models, room on disk and in memory."""
