variable "machines" {
  description = "Machines by name: where to reach each, what runs on it, and flags of its own by component."
  type = map(object({
    address    = string
    components = set(string)
    flags      = optional(any, {})
  }))

  validation {
    condition     = alltrue([for m in var.machines : alltrue([for c in m.components : contains(["all", "sidecar", "store", "query", "compact", "ingest"], c)])])
    error_message = "components: all, sidecar, store, query, compact or ingest."
  }
}

variable "flags" {
  description = "Flags by component, the same on every machine."
  type        = any
  default     = {}
}

variable "bucket" {
  description = "The bucket, as in --objstore.config-file. Null: none."
  type        = any
  default     = null
  sensitive   = true
}

variable "binary" {
  description = "Path of the firnline binary to install."
  type        = string
}

variable "ssh_user" {
  description = "Who logs in; has to be root, or may use sudo without a password."
  type        = string
  default     = "root"
}

variable "ssh_private_key" {
  description = "Key to log in with. Null: that of the SSH agent."
  type        = string
  default     = null
  sensitive   = true
}
