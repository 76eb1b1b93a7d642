"""``elicitable construct``: the theorems as transformers, one subcommand each.

commands.py has the subcommands and their options and imports nothing heavy; the other files do the work.
"""
