"""For those who run a site: looking at entries, removing them, and measuring the cache."""
