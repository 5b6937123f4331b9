"""What the reference says, from the code: a module for each page, with BLOCKS: name -> function."""
