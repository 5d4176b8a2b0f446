// Command reverse_proxy is what the gateway is compared with: Go's own reverse proxy behind TLS, on one processor.
//
//	reverse_proxy ADDRESS CERTIFICATE KEY SERVICE_URL
package main

import (
	"log"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
)

func main() {
	service, err := url.Parse(os.Args[4])
	if err != nil {
		log.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(service)
	log.Fatal(http.ListenAndServeTLS(os.Args[1], os.Args[2], os.Args[3], proxy))
}
