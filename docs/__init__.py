"""The documentation's pages, and the scripts that write what the program itself knows best into them."""
