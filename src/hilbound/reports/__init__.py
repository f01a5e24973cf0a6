"""Reports: pictures, pages and files for people. Nothing here computes a metric."""
