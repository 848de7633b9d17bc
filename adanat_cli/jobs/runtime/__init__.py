"""What every job runs on: devices, processes, locks, signals, seeds, and how it speaks."""
