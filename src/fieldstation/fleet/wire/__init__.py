"""The iCEFARM wire and our compatible extensions of it; the only fleet modules that name a protocol library."""
