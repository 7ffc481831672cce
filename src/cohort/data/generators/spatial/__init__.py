"""Rooms of boxes and cameras, and 16 kinds of questions about them with exact answers. Source: arXiv:2604.14144."""
