"""What a loop keeps: the chain of events and its fold, bundles in git, blobs by hash, and the books that join them."""
