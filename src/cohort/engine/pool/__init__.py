"""One engine out of many: in processes, in Ray's actors, behind servers, in this process."""
