"""Images from wherever people have them: folders, archives, arrays, tables, datasets and plain Python."""
