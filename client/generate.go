package client

//go:generate go tool oapi-codegen -config generate.yaml ../api/openapi.yaml
