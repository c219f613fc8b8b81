"""Conditions: what a sample can be asked for, embedded for networks; and their null."""
