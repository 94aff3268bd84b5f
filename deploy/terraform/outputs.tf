output "topics" {
  description = "Stream to the topic that producers publish to."
  value       = { for name, topic in google_pubsub_topic.stream : name => topic.id }
}

output "subscriptions" {
  description = "Stream to its subscription, from which messages land."
  value       = { for name, subscription in google_pubsub_subscription.landing : name => subscription.id }
}

output "serve_url" {
  description = "Address of the endpoints."
  value       = google_cloud_run_v2_service.serve.uri
}

output "push_service_account" {
  description = "PUSH_SERVICE_ACCOUNT of `event-warehouse push`; null where subscriptions are pulled."
  value       = var.push_endpoint == null ? null : google_service_account.this["push"].email
}
