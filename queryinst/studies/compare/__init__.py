"""What did a setting buy? Finished runs in, a table, plots, a page and plain statements out."""
