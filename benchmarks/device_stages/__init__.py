"""The stages of device_suite.py."""
