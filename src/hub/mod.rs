//! The application: who subscribed to what, and who gets a notification.
