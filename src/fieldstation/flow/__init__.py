"""Orchestrated flows with people in the loop: approvals, shell commands on workers, Prefect tasks. Not built yet."""
