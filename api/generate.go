package api

//go:generate go tool oapi-codegen -config generate.yaml openapi.yaml
