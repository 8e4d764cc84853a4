"""Starting a run in several processes; what they do there is in `fastconv.run.shared`."""
