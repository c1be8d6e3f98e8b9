"""Transformers: which explanation is faithful, do important attention heads help, and what do mitigations change?"""
