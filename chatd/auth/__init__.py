"""Who somebody is: signed tokens, a password file, and the accounts that join them. Everything is verified locally."""
