"""What looks inside: measurements that import the product. The rest of the bench is a black box, and runs these as processes."""
