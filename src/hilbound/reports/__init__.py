"""Reports: pictures, pages and files for people; they compute nothing."""
