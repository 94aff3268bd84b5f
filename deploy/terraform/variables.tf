variable "project" {
  description = "Id of the Google Cloud project."
  type        = string
}

variable "region" {
  description = "Region of Cloud Run and the scheduler."
  type        = string
  default     = "europe-west1"
}

variable "location" {
  description = "Location of BigQuery's datasets (GCP_LOCATION) and of the bucket of published builds."
  type        = string
  default     = "EU"
}

variable "image" {
  description = "Image of deploy/Dockerfile, by digest: REGION-docker.pkg.dev/PROJECT/REPOSITORY/event-warehouse@sha256:..."
  type        = string

  validation {
    condition     = can(regex("@sha256:[0-9a-f]{64}$", var.image))
    error_message = "Name the image by digest (...@sha256:...): a tag can be moved."
  }
}

variable "dataset_prefix" {
  description = "Prefix of the dataset names (DATASET_PREFIX), such as dev_."
  type        = string
  default     = ""
}

variable "land_schedule" {
  description = "Schedule of `event-warehouse land`, as cron, UTC."
  type        = string
  default     = "*/5 * * * *"
}

variable "build_schedule" {
  description = "Schedule of `event-warehouse build`, as cron, UTC. The interval must be longer than build_timeout."
  type        = string
  default     = "*/30 * * * *"
}

variable "build_timeout" {
  description = "Maximum duration of a build, so that two never overlap."
  type        = string
  default     = "1500s"
}

variable "serve_tokens_secret" {
  description = "Name of the secret (Secret Manager) with the value of SERVE_TOKENS."
  type        = string
  default     = "serve-tokens"
}

variable "pseudonym_key_secret" {
  description = "Name of the secret with the value of PSEUDONYM_KEY; null: the warehouse creates a random key."
  type        = string
  default     = null
}

variable "serve_invokers" {
  description = "IAM members that may call the service, such as [\"group:analysts@example.com\"]. They also need a token of SERVE_TOKENS."
  type        = list(string)
  default     = []
}

variable "dead_letter_attempts" {
  description = "Deliveries (5 to 100) after which Pub/Sub moves a message to <topic>-dead-letter; null: never. Best left out: landing accepts every message, so attempts only run out while nothing lands."
  type        = number
  default     = null
}

variable "push_endpoint" {
  description = "URL of `event-warehouse push` on a machine with DuckDB; null: subscriptions are pulled. Its PUSH_AUDIENCE is this URL."
  type        = string
  default     = null
}

variable "kafka_config_secret" {
  description = "Name of the secret with KAFKA_CONFIG_FILE, librdkafka properties; null: only Pub/Sub streams are landed."
  type        = string
  default     = null
}
