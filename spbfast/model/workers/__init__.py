"""What runs later: evacuation, defragmentation, contiguous allocation, shrinking, reclaim."""
