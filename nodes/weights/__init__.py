"""Downloads on the server's side: where files go, one job at a time, the page's addresses; may import seam."""
