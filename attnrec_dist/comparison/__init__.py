"""`attnrec compare`: runs compared user by user, as a report and a picture."""
