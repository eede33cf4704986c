"""Power cuts: what was acknowledged is there afterwards, and the rig that shows it can see a loss."""
