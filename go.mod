module github.com/zarpa-dev/zarpa

go 1.26
