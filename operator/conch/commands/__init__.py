"""The commands of `conch`: their options and help. What they do is in the other rooms, imported when one is run."""
