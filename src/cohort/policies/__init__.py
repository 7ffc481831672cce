"""How log-probability arises. Only a policy knows what a token is made of."""
