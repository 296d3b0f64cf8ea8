"""What every room uses: errors and how a command shows them, the package's name, choices from files, arguments."""
